"""Models, endpoint configurations, endpoints: `serve` programs behind SageMaker's API.

models.py          models and endpoint configurations, as kept and described; their data
servers.py         one container that serves: its model, its process, its health
variants.py        the containers of one endpoint configuration, chosen by weight, and their start
endpoints.py       an endpoint, as kept and described; its creation and end
invocations.py     a request on its way to a container and back; several models, capture, metrics
…_operations.py    the API; endpoint_operations.py also has updates: stages, alarms, roll-back
"""
