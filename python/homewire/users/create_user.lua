-- Store a user who needs no verification.
--- @include "users/creating"
redis.call('ZREM', invited_users, id)
return unannounced('user_created')
