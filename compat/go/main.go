// Blocks that cross between Go and C on many goroutines.
package main

/*
#include <stdlib.h>
#include <string.h>
static unsigned long filled(unsigned char *block, size_t bytes, int value) {
	unsigned long sum = 0;
	memset(block, value, bytes);
	for (size_t at = 0; at < bytes; at += 97) sum += block[at];
	return sum;
}
*/
import "C"

import (
	"fmt"
	"sync"
	"unsafe"
)

func work(number int, sums chan<- uint64) {
	var sum uint64
	blocks := make([]unsafe.Pointer, 64)
	for round := 0; round < 4000; round++ {
		slot := (round*7 + number) % len(blocks)
		if blocks[slot] != nil {
			C.free(blocks[slot])
		}
		bytes := C.size_t((round*number)%5000 + 1)
		blocks[slot] = C.malloc(bytes)
		sum += uint64(C.filled((*C.uchar)(blocks[slot]), bytes, C.int(round%251)))
	}
	for _, block := range blocks {
		C.free(block)
	}
	text := C.CString(fmt.Sprint("goroutine ", number))
	sum += uint64(C.strlen(text))
	C.free(unsafe.Pointer(text))
	sums <- sum
}

func main() {
	sums := make(chan uint64, 32)
	var all sync.WaitGroup
	for number := 1; number <= 32; number++ {
		all.Add(1)
		go func(number int) { defer all.Done(); work(number, sums) }(number)
	}
	all.Wait()
	close(sums)
	var total uint64
	for sum := range sums {
		total += sum
	}
	fmt.Println(total)
	// Go itself leaves without asking the C library, and no report would be written.
	C.exit(0)
}
