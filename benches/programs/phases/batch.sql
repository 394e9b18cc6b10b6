-- A job that runs all night in one process: it loads, reports, drops what it has reported, waits for the next part, and so on.
PRAGMA journal_mode = off;
PRAGMA temp_store = memory;
CREATE TABLE total(part INTEGER, towns INTEGER, amount REAL);

CREATE TABLE purchase(id INTEGER PRIMARY KEY, customer INTEGER, day INTEGER, amount REAL, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
INSERT INTO purchase SELECT i, i * 31 % 20000 + 1, i * 17 % 365, (i * 7 % 1000) / 4.0, 'note ' || (i * i % 1009) || ' on ' || i FROM n;
CREATE INDEX purchase_by_note ON purchase(note);
INSERT INTO total SELECT 1, count(DISTINCT note), sum(amount) FROM purchase;
SELECT length(group_concat(note, ', ')) FROM (SELECT note FROM purchase ORDER BY note);
DROP TABLE purchase;
VACUUM;
.shell sleep 3

CREATE TABLE letter(id INTEGER PRIMARY KEY, body TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
INSERT INTO letter SELECT i, replace(hex(zeroblob(600)), '00', 'word ' || i % 7) FROM n;
INSERT INTO total SELECT 2, count(DISTINCT length(body)), sum(length(body)) FROM letter;
UPDATE letter SET body = upper(body) WHERE id % 3 = 0;
DROP TABLE letter;
VACUUM;
.shell sleep 3

CREATE TABLE event(day INTEGER, kind TEXT, PRIMARY KEY (day, kind)) WITHOUT ROWID;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
INSERT OR IGNORE INTO event SELECT i % 1000, 'kind ' || (i * 7919 % 211) FROM n;
INSERT INTO total SELECT 3, count(*), sum(day) FROM event;
DROP TABLE event;
VACUUM;
.shell sleep 2
SELECT * FROM total;
