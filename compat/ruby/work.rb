# Strings, hashes, threads, fibers, marshalling, compaction and fork.
require "digest"
require "json"

random = Random.new(7)
words = Array.new(60_000) { Array.new(1 + random.rand(12)) { (97 + random.rand(26)).chr }.join }
counts = words.each_with_object(Hash.new(0)) { |word, sums| sums[word] += 1 }
puts counts.size, counts.max_by { |word, count| [count, word] }.inspect
text = JSON.generate(words.each_slice(7).map { |slice| { "n" => slice.size, "w" => slice } })
puts Digest::SHA256.hexdigest(text)
puts JSON.parse(text).sum { |entry| entry["w"].sum(&:length) }
puts Digest::SHA256.hexdigest(Marshal.dump(Marshal.load(Marshal.dump(counts))))
GC.stress = false
threads = 8.times.map do |number|
  Thread.new { (1..4000).map { |index| "#{number}-#{index}" * (index % 9) }.map(&:size).sum }
end
puts threads.map(&:value).sum
fibers = 500.times.map { |number| Fiber.new { 20.times { |index| Fiber.yield("f" * (number + index)) }; nil } }
puts fibers.sum { |fiber| 20.times.sum { fiber.resume.size } }
GC.compact if GC.respond_to?(:compact)
puts text.gsub(/[aeiou]+/) { |found| found.upcase }.scan(/[A-Z]{2,}/).size
children = 4.times.map do |number|
  reader, writer = IO.pipe
  pid = fork { reader.close; writer.write(words.rotate(number * 100).first(3000).sort.join.sum.to_s); writer.close; exit!(0) }
  writer.close
  [pid, reader]
end
children.each { |pid, reader| puts reader.read; Process.wait(pid); puts $?.exitstatus }
puts (2**4000).to_s.length, (1..900).inject(:*).to_s.bytes.sum
puts eval("[" + (1..5000).map { |number| "'#{number}'.to_sym" }.join(",") + "].size")
