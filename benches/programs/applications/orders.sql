-- A shop in memory: rows by the hundred thousand, indexes, joins, groups, updates, text, window functions.
PRAGMA journal_mode = off;
CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, town TEXT);
CREATE TABLE purchase(id INTEGER PRIMARY KEY, customer INTEGER, day INTEGER, amount REAL, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO customer SELECT i, 'customer ' || (i * 7919 % 20011), 'town ' || (i % 97) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250000)
INSERT INTO purchase SELECT i, i * 31 % 20000 + 1, i * 17 % 365, (i * 7 % 1000) / 4.0, 'note ' || (i * i % 1009) || ' on ' || i FROM n;
CREATE INDEX purchase_by_customer ON purchase(customer, day);
CREATE INDEX purchase_by_note ON purchase(note);
SELECT town, count(*), round(sum(amount), 2) FROM customer JOIN purchase ON purchase.customer = customer.id
  GROUP BY town ORDER BY 3 DESC LIMIT 5;
SELECT count(DISTINCT note), max(length(note)) FROM purchase;
UPDATE purchase SET note = upper(note) || '!' WHERE day % 3 = 0;
DELETE FROM purchase WHERE day = 100;
SELECT day, round(avg(amount) OVER (ORDER BY day ROWS 10 PRECEDING), 3) FROM
  (SELECT day, sum(amount) AS amount FROM purchase GROUP BY day) ORDER BY day DESC LIMIT 5;
SELECT length(group_concat(name, ', ')) FROM (SELECT name FROM customer ORDER BY name);
SELECT a.town, count(*) FROM customer a JOIN customer b ON a.name < b.name AND a.town = b.town GROUP BY a.town ORDER BY 2, 1 LIMIT 3;
