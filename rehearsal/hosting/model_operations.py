"""The API of models and endpoint configurations."""

from rehearsal.emulator.errors import invalid, not_executed
from rehearsal.emulator.operations import Answer, Request, operation, page
from rehearsal.emulator.state import State
from rehearsal.emulator.tags import keep_tags
from rehearsal.hosting.models import (
    EndpointConfig,
    Model,
    endpoint_config_named,
    model_data_exists,
    model_named,
    model_uri,
)
from rehearsal.hosting.variants import container_of_package
from rehearsal.jobs.container import image_folder


@operation("CreateModel")
def create_model(request: Request, *, state: State) -> Answer:
    """Keep a model, once its data are found."""
    name = request["ModelName"]
    model = Model(name, arn=state.arn("model", name), request=request)
    if not model.containers:
        raise invalid("CreateModel needs PrimaryContainer or Containers.")
    for definition in model.containers:
        full = container_of_package(definition, state=state)
        image_folder(full.get("Image", ""), state=state)
        if not model_data_exists(full, state=state):
            raise invalid(
                f'Could not access model data at {model_uri(full)}. Please ensure that the role "'
                f'{request.get("ExecutionRoleArn", "")}" exists and that its trust relationship '
                'policy allows the action "sts:AssumeRole" for the service principal '
                '"sagemaker.amazonaws.com". Also ensure that the role has "s3:GetObject" '
                f"permissions and that the object is located in {state.settings.region}."
            )
    with state.lock:
        if name in state.kept(Model):
            raise invalid(f'Cannot create already existing model "{model.arn}".')
        state.kept(Model)[name] = model
    keep_tags(model.arn, request.get("Tags", []), state=state)
    return {"ModelArn": model.arn}


@operation("DescribeModel")
def describe_model(request: Request, *, state: State) -> Answer:
    """Show a model."""
    return model_named(request["ModelName"], state=state).description()


@operation("ListModels")
def list_models(request: Request, *, state: State) -> Answer:
    """Show all models."""
    rows = [
        {"ModelName": model.name, "ModelArn": model.arn, "CreationTime": model.created}
        for model in list(state.kept(Model).values())
    ]
    return page(rows, request=request, key="Models", kind="Model")


@operation("DeleteModel")
def delete_model(request: Request, *, state: State) -> Answer:
    """Forget a model; endpoints that serve it go on."""
    model = model_named(request["ModelName"], state=state)
    with state.lock:
        state.kept(Model).pop(model.name, None)
        state.forget_tags(model.arn)
    return {}


@operation("CreateEndpointConfig")
def create_endpoint_config(request: Request, *, state: State) -> Answer:
    """Keep an endpoint configuration whose models exist."""
    name = request["EndpointConfigName"]
    _refuse_unsupported(request)
    for variant in request["ProductionVariants"]:
        model = model_named(variant["ModelName"], state=state)
        _refuse_several_models(model, variant=variant, request=request)
    config = EndpointConfig(name, arn=state.arn("endpoint-config", name), request=request)
    with state.lock:
        if name in state.kept(EndpointConfig):
            message = f'Cannot create already existing endpoint configuration "{config.arn}".'
            raise invalid(message)
        state.kept(EndpointConfig)[name] = config
    keep_tags(config.arn, request.get("Tags", []), state=state)
    return {"EndpointConfigArn": config.arn}


@operation("DescribeEndpointConfig")
def describe_endpoint_config(request: Request, *, state: State) -> Answer:
    """Show an endpoint configuration."""
    return endpoint_config_named(request["EndpointConfigName"], state=state).description()


@operation("ListEndpointConfigs")
def list_endpoint_configs(request: Request, *, state: State) -> Answer:
    """Show all endpoint configurations."""
    rows = [
        {
            "EndpointConfigName": config.name,
            "EndpointConfigArn": config.arn,
            "CreationTime": config.created,
        }
        for config in list(state.kept(EndpointConfig).values())
    ]
    return page(rows, request=request, key="EndpointConfigs", kind="EndpointConfig")


@operation("DeleteEndpointConfig")
def delete_endpoint_config(request: Request, *, state: State) -> Answer:
    """Forget an endpoint configuration; an endpoint that uses it can be updated no more."""
    config = endpoint_config_named(request["EndpointConfigName"], state=state)
    with state.lock:
        state.kept(EndpointConfig).pop(config.name, None)
        state.forget_tags(config.arn)
    return {}


def _refuse_unsupported(request: Request) -> None:
    for variant in request["ProductionVariants"]:
        if "ModelName" not in variant:
            raise not_executed(
                "A production variant without ModelName (inference components)",
                why="only models of a variant's own are served",
            )


def _refuse_several_models(model: Model, *, variant: Request, request: Request) -> None:
    """Serverless endpoints take no such models; InvokeEndpointAsync has no TargetModel."""
    if not any(container.get("Mode") == "MultiModel" for container in model.containers):
        return
    if "ServerlessConfig" in variant or request.get("AsyncInferenceConfig"):
        kind = "a serverless" if "ServerlessConfig" in variant else "an asynchronous"
        raise invalid(f'The multi-model "{model.name}" cannot be behind {kind} endpoint.')
