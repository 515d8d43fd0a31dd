-- Release at most `count` charges of records that have expired. Answers how many were released.
local count = ARGV[1]
return unannounced('expired_forgotten', tostring(forget_expired(tonumber(count))))
