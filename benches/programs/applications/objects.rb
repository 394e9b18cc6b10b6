# Objects, strings, symbols, hashes and blocks, with a heap that the collector has work with.
Point = Struct.new(:x, :y, :label)

random = 1
below = lambda { |bound| (random = (random * 1103515245 + 12345) % 2147483648) / 65536 % bound }
points = Array.new(60000) { |n| Point.new(n, below.call(1000), "point #{n}") }
8.times do |round|
  points.map! { |point| below.call(3).zero? ? Point.new(point.y, point.x, point.label + round.to_s) : point }
  groups = points.group_by { |point| point.label[-2..] }
  groups.each_value { |group| group.sort_by! { |point| [point.y, point.label] } }
  text = groups.map { |key, group| "#{key}:#{group.map(&:label).join(',')}" }.join(';')
  found = text.scan(/point (\d+)/).flatten.map(&:to_i).sum
  puts "#{groups.size} #{text.length} #{found}"
end
