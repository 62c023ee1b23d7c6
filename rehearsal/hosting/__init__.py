"""Models, endpoint configurations, endpoints: `serve` programs behind SageMaker's API.

models.py          models and endpoint configurations, as kept and described
containers.py      one container that serves: its model, its process, its health
fleets.py          the containers of one endpoint configuration, chosen by weight
endpoints.py       an endpoint, as kept and described; its creation and end
traffic.py         how an update moves traffic, as a list of stages
updates.py         blue/green and rolling updates, alarms and rollback
alarms.py          CloudWatch alarms, judged by the metrics of a while
invocations.py     a request on its way to a container and back
multi_model.py     TargetModel: SageMaker's contract of the /models API
capture.py         what is kept of requests and answers
measurements.py    Invocations, errors and latencies in CloudWatch
…_operations.py    the API
"""
