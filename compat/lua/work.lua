-- Tables that grow, strings, coroutines, metatables, both modes of the collector.
local function work(mode)
  collectgarbage(mode)
  local state = 12345
  local function random(limit)
    state = (state * 1103515245 + 12345) % 2147483648
    return state // 65536 % limit
  end
  local words = {}
  for index = 1, 80000 do
    local letters = {}
    for position = 1, random(14) + 1 do letters[position] = string.char(97 + random(26)) end
    words[index] = table.concat(letters)
  end
  local counts, distinct = {}, 0
  for _, word in ipairs(words) do
    if not counts[word] then distinct = distinct + 1 end
    counts[word] = (counts[word] or 0) + 1
  end
  table.sort(words)
  print(mode, distinct, words[1], words[#words])
  local sum = 0
  local makers = {}
  for number = 1, 2000 do
    makers[number] = coroutine.wrap(function()
      for index = 1, 20 do coroutine.yield(("x"):rep(number % 97 + index)) end
    end)
  end
  for _ = 1, 20 do for _, maker in ipairs(makers) do sum = sum + #maker() end end
  local weak = setmetatable({}, { __mode = "v" })
  for index = 1, 20000 do weak[index] = { index } end
  collectgarbage()
  local text = table.concat(words, " ")
  print(sum, #weak <= 20000, #text, (text:gsub("[aeiou]+", function(found) return found:upper() end)):len())
  local tree = nil
  for _ = 1, 50000 do tree = { left = tree, value = random(1000) } end
  local total = 0
  while tree do total = total + tree.value; tree = tree.left end
  print(total, select("#", table.unpack(words, 1, 200)))
  local closing = 0
  for _ = 1, 5000 do
    local handle <close> = setmetatable({}, { __close = function() closing = closing + 1 end })
  end
  print(closing)
end
work("incremental")
work("generational")
