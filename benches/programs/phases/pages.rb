# A web server's day: pages are built from templates and thrown away, a few sessions are kept, traffic comes and goes.
require "json"

Session = Struct.new(:id, :seen, :cart)
sessions = {}
sum = 0
random = Random.new(7)

page = lambda do |number, items|
  rows = Array.new(items) { |i| { "id" => i, "name" => "item #{i * number % 977}", "price" => (i * 37 % 1000) / 10.0 } }
  body = rows.map { |row| "<tr><td>#{row["name"]}</td><td>#{row["price"]}</td></tr>" }.join("\n")
  [JSON.generate(rows), "<table>#{body}</table>"]
end

# Requests, items on a page, sessions that stay, seconds of quiet afterwards.
[[1500, 120, 1500, 2.0], [250, 1500, 400, 2.0], [3000, 30, 3000, 1.0], [60, 6000, 100, 3.0]].each do |requests, items, stay, quiet|
  requests.times do |number|
    json, html = page.call(number, items)
    sum += json.length + html.length
    id = random.rand(stay)
    session = (sessions[id] ||= Session.new(id, [], {}))
    session.seen << html[0, 200]
    session.seen.shift if session.seen.length > 20
    session.cart[number % 50] = json[0, 400]
  end
  sessions.delete_if { |id, _| id % 4 != 0 }
  GC.start
  (quiet * 10).to_i.times { sleep 0.1 }
end
puts sum
