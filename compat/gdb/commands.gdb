set confirm off
set pagination off
set width 0
set debuginfod enabled off
break work
break depth if n == 7
run
bt 1
print *(struct node *)head
print ((struct node *)head)->next->next->value
continue
bt 3
info breakpoints
delete
print depth(5)
call ((void (*)(void *))free)(((void *(*)(unsigned long))malloc)(100))
python print(sum(len(str(gdb.parse_and_eval("n + %d" % i))) for i in range(2000)))
ptype struct node
info line main
disassemble /s depth
finish
continue
