set -euo pipefail
# Go has an allocator of its own; what it calls through cgo, and the C compiler that it starts, are under test.
cp "$COMPAT_DIR/main.go" .
export GOCACHE=$PWD/cache GOPATH=$PWD/path GO111MODULE=off GOFLAGS=-p=2 CGO_ENABLED=1
gofmt -l .
go build -o program main.go
./program
