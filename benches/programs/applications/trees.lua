-- Binary trees, tables as records, strings by concatenation, closures.
local function tree(depth)
    if depth == 0 then return { value = 1 } end
    return { left = tree(depth - 1), right = tree(depth - 1), value = depth }
end
local function total(node)
    if not node.left then return node.value end
    return node.value + total(node.left) + total(node.right)
end
local kept = tree(15)
local sum = 0
for round = 1, 150 do sum = sum + total(tree(12)) end
local words, counts = {}, {}
for number = 1, 600000 do
    local word = "w" .. (number * 7919 % 5003)
    words[#words + 1] = word
    counts[word] = (counts[word] or 0) + 1
end
local lines = {}
for at = 1, #words, 10 do lines[#lines + 1] = table.concat(words, " ", at, at + 9) end
local text = table.concat(lines, "\n")
local found = select(2, text:gsub("w(%d)(%d+)", function(first, rest) return rest .. first end))
local actions = {}
for number = 1, 500000 do actions[number % 1000 + 1] = function() return number end end
for _, action in ipairs(actions) do sum = sum + action() end
print(sum, total(kept), #text, found)
