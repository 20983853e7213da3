"""The hosts of a training job, one by one: what AWS's description of the job as a whole cannot tell."""

from __future__ import annotations

from clary.faults import NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.resource import Key
from clary.resources.task import TaskPhase
from clary.resources.training_job import KIND, hosts, task_id
from clary.services.operation import RequestContext, operation


@operation("clary")
async def list_training_job_hosts(context: RequestContext, request: Members) -> ReplyMembers:
    """How far each host has come. A host whose task is not known is about to begin, or was freed."""
    key = Key(KIND, context.account, context.region, request["TrainingJobName"])
    job = await context.backends.store.find(key)
    if job is None:
        raise NotFound(f"There is no training job '{key.name}' in {context.region}.")
    attempt = int(str(job.status["Attempt"]))
    found = []
    for name, instance_type, group in hosts(job.spec):
        task = await context.backends.driver.inspect(task_id(job.uid, attempt, name))
        phase = task.phase if task else TaskPhase.PENDING
        results = task.results if task else {}
        found.append(
            {
                "HostName": name,
                "InstanceType": instance_type,
                "InstanceGroupName": group,
                "Phase": phase.value,
                "Message": task.transitions[-1].message if task and task.transitions else None,
                "ModelShare": results.get("model_share"),
                "OutputShare": results.get("output_share"),
            }
        )
    return {"Hosts": found}
