-- Disable the project: all its keys are invalid. Its records can still be changed.
if state == 'disabled' then return {'ok'} end
redis.call('HSET', project, 'state', 'disabled')
return announce('project_disabled', {})
