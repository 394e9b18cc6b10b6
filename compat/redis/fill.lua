for i = 1, 20000 do
    redis.call('SET', 'string:' .. i, string.rep('v' .. i, i % 40))
    redis.call('HSET', 'hash:' .. i % 200, 'field' .. i, i * 7, 'other' .. i % 50, string.rep('x', i % 90))
    redis.call('RPUSH', 'list:' .. i % 100, i, string.rep('y', i % 300))
    redis.call('SADD', 'set:' .. i % 150, i, 'member' .. i % 1000)
    redis.call('ZADD', 'sorted:' .. i % 100, i % 977, 'm' .. i)
    if i % 7 == 0 then redis.call('DEL', 'string:' .. i - 3) end
    if i % 11 == 0 then redis.call('LPOP', 'list:' .. i % 100) end
    if i % 13 == 0 then redis.call('APPEND', 'string:' .. i, string.rep('z', 5000)) end
    if i % 17 == 0 then redis.call('SETRANGE', 'string:' .. i, 20000, 'end') end
end
return redis.call('DBSIZE')
