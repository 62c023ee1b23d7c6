"""Lineage: artifacts, actions and contexts, and the associations between them."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from rehearsal.emulator.errors import AwsError, invalid
from rehearsal.emulator.operations import Answer, Request, cut, is_in_time, operation, page
from rehearsal.emulator.state import State, now
from rehearsal.emulator.tags import keep_tags

KINDS = ("Artifact", "Action", "Context")


@dataclass
class Entity:
    """One artifact, action or context."""

    kind: str
    content: dict[str, Any]
    arn: str
    created: datetime = field(default_factory=now)
    modified: datetime = field(default_factory=now)

    @property
    def name(self) -> str:
        return str(self.content.get(f"{self.kind}Name", ""))

    @property
    def type(self) -> str:
        """ArtifactType, ActionType or ContextType."""
        return str(self.content.get(f"{self.kind}Type", ""))

    def summary(self) -> dict[str, Any]:
        """Its entry in a list."""
        shown = ("Source", f"{self.kind}Name", f"{self.kind}Type", "Status")
        return {
            f"{self.kind}Arn": self.arn,
            **{key: self.content[key] for key in shown if key in self.content},
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
        }

    def description(self) -> dict[str, Any]:
        """The answer of Describe."""
        kept = {key: value for key, value in self.content.items() if key != "Tags"}
        return {**kept, **self.summary()}


@dataclass(frozen=True)
class Association:
    """An arrow from one entity to another."""

    source: Entity
    destination: Entity
    type: str
    created: datetime

    def summary(self) -> dict[str, Any]:
        """Its entry in ListAssociations."""
        return {
            "SourceArn": self.source.arn,
            "DestinationArn": self.destination.arn,
            "SourceType": self.source.type,
            "DestinationType": self.destination.type,
            "SourceName": self.source.name,
            "DestinationName": self.destination.name,
            "AssociationType": self.type,
            "CreationTime": self.created,
        }


def create(request: Request, *, state: State, kind: str) -> Answer:
    """Keep an entity."""
    name = uuid.uuid4().hex if kind == "Artifact" else request[f"{kind}Name"]
    entity = Entity(kind, dict(request), arn=state.arn(kind.lower(), name))
    with state.lock:
        if entity.arn in state.kept(Entity):
            raise invalid(f"{kind} already exists: {entity.arn}")
        state.kept(Entity)[entity.arn] = entity
    keep_tags(entity.arn, request.get("Tags", []), state=state)
    return {f"{kind}Arn": entity.arn}


def describe(request: Request, *, state: State, kind: str) -> Answer:
    """Show an entity."""
    return _asked(request, state=state, kind=kind).description()


def update(request: Request, *, state: State, kind: str) -> Answer:
    """Change what is given."""
    with state.lock:
        entity = _asked(request, state=state, kind=kind)
        removed = request.get("PropertiesToRemove", [])
        properties = {**entity.content.get("Properties", {}), **request.get("Properties", {})}
        given = {key: value for key, value in request.items() if key != "PropertiesToRemove"}
        entity.content |= given
        entity.content["Properties"] = {k: v for k, v in properties.items() if k not in removed}
        entity.modified = now()
    return {f"{kind}Arn": entity.arn}


def list_all(request: Request, *, state: State, kind: str) -> Answer:
    """Show the entities of a kind, by source and type where they are given."""
    source, wanted = request.get("SourceUri"), request.get(f"{kind}Type")
    found = [
        entity.summary()
        for entity in list(state.kept(Entity).values())
        if entity.kind == kind
        and source in (None, entity.content["Source"]["SourceUri"])
        and wanted in (None, entity.type)
    ]
    rows = [r for r in found if is_in_time(r, request, field="CreationTime", prefix="Created")]
    return page(rows, request=request, key=f"{kind}Summaries", kind=kind)


def delete(request: Request, *, state: State, kind: str) -> Answer:
    """Forget an entity that nothing is associated with."""
    with state.lock:
        entity = _asked(request, state=state, kind=kind)
        if any(entity in (each.source, each.destination) for each in _associations(state)):
            raise invalid(f"Cannot delete {entity.arn}: it has associations; delete these first.")
        state.kept(Entity).pop(entity.arn)
        state.forget_tags(entity.arn)
    return {f"{kind}Arn": entity.arn}


@operation("AddAssociation")
def add_association(request: Request, *, state: State) -> Answer:
    """Link two entities."""
    source = _entity(request["SourceArn"], state=state)
    destination = _entity(request["DestinationArn"], state=state)
    link = Association(source, destination, request.get("AssociationType", ""), now())
    with state.lock:
        state.kept(Association)[_key(request)] = link
    return {"SourceArn": source.arn, "DestinationArn": destination.arn}


@operation("ListAssociations")
def list_associations(request: Request, *, state: State) -> Answer:
    """Show links, by their ends and types where they are given."""
    names = ("SourceArn", "DestinationArn", "SourceType", "DestinationType", "AssociationType")
    wanted = {name: request[name] for name in names if name in request}
    every = [each.summary() for each in _associations(state)]
    rows = [
        row
        for row in every
        if all(row[name] == wanted[name] for name in wanted)
        and is_in_time(row, request, field="CreationTime", prefix="Created")
    ]
    if by := request.get("SortBy"):
        descending = request.get("SortOrder", "Descending") == "Descending"
        rows.sort(key=lambda row: row[by], reverse=descending)
    return cut(rows, request=request, key="AssociationSummaries")


@operation("DeleteAssociation")
def delete_association(request: Request, *, state: State) -> Answer:
    """Forget a link."""
    with state.lock:
        if state.kept(Association).pop(_key(request), None) is None:
            raise _not_found(f"association {_key(request)}")
    return {key: request[key] for key in ("SourceArn", "DestinationArn")}


def _key(request: Mapping[str, Any]) -> str:
    return f"{request['SourceArn']} → {request['DestinationArn']}"


def _associations(state: State) -> list[Association]:
    return list(state.kept(Association).values())


def _asked(request: Request, *, state: State, kind: str) -> Entity:
    arn = request.get(f"{kind}Arn") or state.arn(kind.lower(), request.get(f"{kind}Name", ""))
    return _entity(arn, state=state)


def _entity(arn: str, *, state: State) -> Entity:
    entity = state.kept(Entity).get(arn)
    if entity is None:
        raise _not_found(arn)
    return entity


def _not_found(what: str) -> AwsError:
    return AwsError("ResourceNotFound", f"{what} does not exist.")


def _register() -> None:
    for kind in KINDS:
        operation(f"Create{kind}")(partial(create, kind=kind))
        operation(f"Describe{kind}")(partial(describe, kind=kind))
        operation(f"Update{kind}")(partial(update, kind=kind))
        operation(f"List{kind}s")(partial(list_all, kind=kind))
        operation(f"Delete{kind}")(partial(delete, kind=kind))


_register()
