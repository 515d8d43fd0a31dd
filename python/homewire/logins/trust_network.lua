-- An attempt succeeded: reset the counters of its account (KEYS from 4 on), and remember the network.
local known_networks = KEYS[3]
local network = ARGV[1]
--- @include "store/clock"
redis.call('ZADD', known_networks, now, network)
redis.call('ZREMRANGEBYRANK', known_networks, 0, -1 - MAX_NETWORKS)
redis.call('PEXPIRE', known_networks, KNOWN_MS)
for i = 4, #KEYS do redis.call('UNLINK', KEYS[i]) end
return unannounced('network_trusted')
