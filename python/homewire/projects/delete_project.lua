-- Mark the project as deleted: all its keys are invalid, and every change is refused.
redis.call('HSET', project, 'state', 'deleted')
return announce('project_deleted', {})
