# Parallel compilation, generated dependencies, functions of make itself.
# The place of the build is not to be seen in what is built.
CFLAGS := -O1 -g -MMD -fdebug-prefix-map=$(CURDIR)=.
OBJECTS := $(patsubst %.c,%.o,$(sort $(wildcard part*.c) main.c))

all: program

program: $(OBJECTS)
	$(CC) -o $@ $^

broken: no-such-file
	true

define rule
report-$(1):
	@echo $(1) $(words $(filter part$(1)%,$(OBJECTS)))
REPORTS += report-$(1)
endef
$(foreach number,1 2 3 4 5 6 7 8 9,$(eval $(call rule,$(number))))
numbers := $(foreach a,0 1 2 3 4 5 6 7 8 9,$(foreach b,0 1 2 3 4 5 6 7 8 9,$(foreach c,0 1 2 3 4 5 6 7 8 9,$a$b$c)))
report: $(REPORTS)
	@echo $(words $(numbers)) $(lastword $(sort $(numbers)))

.NOTPARALLEL: report
-include $(OBJECTS:.o=.d)
