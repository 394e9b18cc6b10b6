" Substitutions, undo, macros, buffers, sorting, the script language.
set nocompatible nomore undolevels=1000 maxmempattern=2000000
%s/\v(\w+) (\w+) dog/\2 \1 cat/
silent! g/7/m0
undo
redo
let lines = []
for number in range(1, 3000)
  call add(lines, repeat('x', number % 80) .. number)
endfor
call append('$', lines)
%sort n
1,100y a
normal! G"ap
let @q = "0xp$xP:s/o/0/eg\<CR>j"
normal! gg
normal! 500@q
let counts = {}
for line in getline(1, '$')
  for word in split(line)
    let counts[word] = get(counts, word, 0) + 1
  endfor
endfor
for number in range(1, 60)
  execute 'new buffer' .. number
  call setline(1, map(range(1, 200), 'v:val .. " of " .. number'))
  set nomodified
endfor
only!
buffer text.txt
for round in range(50)
  undo
endfor
for round in range(25)
  redo
endfor
write!
call writefile([len(counts), line('$'), len(getbufinfo()), sha256(join(getline(1, '$'), "\n"))], 'result.txt')
qall!
