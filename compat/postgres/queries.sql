create table orders as
    select id, id % 997 as customer, (id * 7919 % 10007)::numeric / 100 as amount, date '2020-01-01' + id % 1500 as day
    from generate_series(1, 60000) as id;
create table lines as
    select id % 60000 + 1 as order_id, id as line, md5(id::text) as note, repeat(chr(97 + id % 26), id % 300) as filler
    from generate_series(1, 120000) as id;
create index on orders (customer);
create index on lines (order_id);
analyze;
select count(*), sum(amount), min(day), max(day) from orders;
select customer, sum(amount) total, rank() over (order by sum(amount) desc) from orders group by customer order by 3, 1 limit 10;
select md5(string_agg(note, ',' order by line)) from lines where order_id % 7 = 0;
select o.customer, count(*), sum(length(l.filler)) from orders o join lines l on l.order_id = o.id
    where o.amount > 50 group by o.customer order by 2 desc, 1 limit 10;
select md5(jsonb_agg(jsonb_build_object('n', line, 't', left(filler, 40)) order by line)::text) from lines where line <= 20000;
with recursive chain(n, length) as (select 27::bigint, 1 union all
    select case when n % 2 = 0 then n / 2 else 3 * n + 1 end, length + 1 from chain where n <> 1)
    select max(length), max(n) from chain;
do $$
declare text_so_far text := '';
begin
    for i in 1..3000 loop text_so_far := text_so_far || i::text; end loop;
    raise notice 'length %', length(text_so_far);
end $$;
begin; delete from lines where line % 3 = 0; rollback;
update lines set note = upper(note) where line % 5 = 0;
vacuum full lines;
select count(*), md5(string_agg(note, '' order by line)) from lines;
