# An editor in Ruby: a text is loaded, changed line by line with undo, searched, closed; then it waits.
srand(11)
2.times do
  lines = Array.new(12_000) { |row| "line #{row} " + "word " * rand(3..14) }
  undo = []
  30.times do |step|
    600.times do
      row = rand(lines.size)
      undo << [row, lines[row]]
      lines[row] = lines[row].sub("word", "change#{step}").dup
    end
    undo.shift(400) if undo.size > 4_000
    sleep 0.03
  end
  found = lines.map { |line| line.scan(/change\d+/).uniq }.flatten.tally
  text = lines.join("\n")
  10.times { text = text.gsub("word", "text").gsub("text", "word"); sleep 0.15 }
  lines = undo = found = text = nil
  GC.start
  15.times { Array.new(40) { |cell| "status #{cell}" * 3 }; sleep 0.1 }
end
