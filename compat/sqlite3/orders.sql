PRAGMA journal_mode = memory;
PRAGMA synchronous = off;
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customer, cents INTEGER NOT NULL, note TEXT, body BLOB);
BEGIN;
WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
INSERT INTO customer SELECT i, 'customer ' || (i * 7919 % 5000), 'city ' || (i % 97) FROM n;
WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
INSERT INTO orders
SELECT i, 1 + i * 7919 % 5000, i * 104729 % 1000003, substr('the quick brown fox jumps over the lazy dog', 1 + i % 20, i % 23), zeroblob(i % 50) FROM n;
COMMIT;
CREATE INDEX orders_by_customer ON orders (customer, cents);
CREATE INDEX orders_by_note ON orders (note);
CREATE INDEX customer_by_city ON customer (city, name);
SELECT count(*), sum(cents), max(length(body)) FROM orders;
SELECT city, count(*), sum(cents) FROM orders JOIN customer ON customer.id = orders.customer GROUP BY city ORDER BY 3 DESC LIMIT 5;
SELECT note, count(DISTINCT customer) FROM orders GROUP BY note ORDER BY 2 DESC, 1 LIMIT 5;
UPDATE orders SET note = note || ' and again ' || upper(note) WHERE id % 3 = 0;
DELETE FROM orders WHERE customer IN (SELECT id FROM customer WHERE city = 'city 13');
SELECT count(*), sum(length(note)), group_concat(DISTINCT length(note)) FROM (SELECT note FROM orders ORDER BY cents, id LIMIT 1000);
SELECT customer, cents, row_number() OVER (PARTITION BY customer ORDER BY cents, id) AS place FROM orders ORDER BY place DESC, customer LIMIT 5;
SELECT length(group_concat(name, ', ')) FROM (SELECT name FROM customer ORDER BY name);
SELECT json_extract(json_group_array(json_object('id', id, 'city', city)), '$[4000].city') FROM (SELECT * FROM customer ORDER BY id);
PRAGMA integrity_check;
SELECT 'done', total_changes();
