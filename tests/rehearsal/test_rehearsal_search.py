"""The parts of a tuning job that need no emulator: ranges, strategies, criteria."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.tuning.jobs import (
    child_name,
    child_request,
    falls_behind_median,
    jobs_without_improvement,
    read_criteria,
)
from rehearsal.tuning.operations import maximum_resource, start_search
from rehearsal.tuning.space import Space, read_space

OBJECTIVE = {"Type": "Maximize", "MetricName": "score"}
RANGES = {
    "IntegerParameterRanges": [{"Name": "layers", "MinValue": "1", "MaxValue": "9"}],
    "ContinuousParameterRanges": [
        {"Name": "rate", "MinValue": "1e-5", "MaxValue": "0.1"},
        {
            "Name": "momentum",
            "MinValue": "0.5",
            "MaxValue": "0.999",
            "ScalingType": "ReverseLogarithmic",
        },
    ],
    "CategoricalParameterRanges": [{"Name": "kind", "Values": ['"sgd"', '"adam"']}],
}


def config(strategy: str, **more: object) -> dict[str, object]:
    return {"Strategy": strategy, "HyperParameterTuningJobObjective": OBJECTIVE, **more}


@pytest.mark.parametrize("strategy", ["Random", "Bayesian"])
def test_drawn_values_are_strings_within_their_ranges(strategy: str) -> None:
    space = read_space(RANGES)
    search = start_search(config(strategy, RandomSeed=1), space=space, static={})
    for number in range(15):
        candidate = search.draw()
        assert candidate is not None
        values = candidate.values
        assert all(isinstance(value, str) for value in values.values())
        assert 1 <= int(values["layers"]) <= 9
        assert 1e-5 <= float(values["rate"]) <= 0.1
        assert 0.5 <= float(values["momentum"]) <= 0.999
        assert values["kind"] in ('"sgd"', '"adam"')
        search.learn(candidate, objective=float(number), stopped=number % 3 == 0)


@given(st.floats(0.5, 0.999), st.integers(1, 9), st.floats(1e-5, 0.1))
def test_strings_and_points_of_the_search_are_the_same(
    momentum: float, layers: int, rate: float
) -> None:
    space = read_space(RANGES)
    values = {
        "momentum": repr(momentum),
        "layers": str(layers),
        "rate": repr(rate),
        "kind": '"sgd"',
    }
    again = space.outward(space.inward(values))
    assert float(again["momentum"]) == pytest.approx(momentum)
    assert (again["layers"], float(again["rate"])) == (str(layers), rate)


def test_a_bayesian_search_finds_the_better_half() -> None:
    ranges = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
    search = start_search(config("Bayesian", RandomSeed=3), space=read_space(ranges), static={})
    drawn = []
    for _ in range(40):
        candidate = search.draw()
        assert candidate is not None
        drawn.append(float(candidate.values["x"]))
        search.learn(candidate, objective=-abs(drawn[-1] - 0.9), stopped=False)
    assert sum(abs(x - 0.9) < 0.15 for x in drawn[20:]) > 10


def test_results_of_parents_enter_the_search_where_they_fit() -> None:
    space = read_space(RANGES)
    search = start_search(config("Bayesian"), space=space, static={})
    fits = {"layers": "3", "rate": "0.01", "momentum": "0.9", "kind": '"adam"', "epochs": "5"}
    jobs = [(fits, 0.5), (fits | {"layers": "10"}, 0.9), ({"layers": "3"}, 0.9)]
    assert search.learn_from_parents(jobs) == 1


def test_a_grid_is_every_combination_once() -> None:
    ranges = {
        "CategoricalParameterRanges": [
            {"Name": "a", "Values": ["1", "2"]},
            {"Name": "b", "Values": ["x", "y", "z"]},
        ]
    }
    search = start_search(config("Grid"), space=read_space(ranges), static={})
    drawn = []
    while candidate := search.draw():
        drawn.append((candidate.values["a"], candidate.values["b"]))
        search.learn(candidate, objective=1.0, stopped=False)
    assert drawn == [(a, b) for a in "12" for b in "xyz"]


def test_hyperband_stops_the_worst_and_keeps_the_best() -> None:
    ranges = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
    band = {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 9}}
    search = start_search(
        config("Hyperband", StrategyConfig=band, RandomSeed=1), space=read_space(ranges), static={}
    )
    ended_at = {}
    for number in range(30, 0, -1):
        candidate = search.draw()
        assert candidate is not None
        metrics: list[float] = []
        while len(metrics) < 9:
            metrics.append(number * (len(metrics) + 1))
            if candidate.falls_behind(metrics):
                break
        ended_at[number] = len(metrics)
        search.learn(candidate, objective=metrics[-1], stopped=len(metrics) < 9)
    assert ended_at[30] == 9
    assert sum(length < 9 for length in ended_at.values()) > 10
    assert set(ended_at.values()) <= {1, 3, 9}


def test_max_resource_is_given_or_the_number_of_epochs() -> None:
    band = {"HyperbandStrategyConfig": {"MaxResource": 7}}
    assert maximum_resource({"StrategyConfig": band}, static={"epochs": "3"}) == 7
    assert maximum_resource({}, static={"num_epochs": '"12"'}) == 12
    with pytest.raises(ValueError, match="MaxResource"):
        maximum_resource({}, static={"epochs": "many"})


def test_a_job_below_the_median_of_running_averages_falls_behind() -> None:
    earlier = [[1.0, 1.0], [2.0, 4.0], [5.0, 5.0]]  # running averages at step 2: 1, 3, 5
    assert falls_behind_median([9.0, 2.9], earlier=earlier, maximize=True)
    assert not falls_behind_median([0.0, 3.0], earlier=earlier, maximize=True)
    assert falls_behind_median([0.0, 3.1], earlier=earlier, maximize=False)
    assert not falls_behind_median([0.0, 0.0, 0.0], earlier=earlier, maximize=True)
    assert not falls_behind_median([0.0], earlier=earlier[:2], maximize=True)


def test_criteria_end_a_search() -> None:
    def fulfilled(objectives: list[float], **given: object) -> str | None:
        criteria = {"TuningJobCompletionCriteria": given}
        return read_criteria(config("Random", **criteria)).fulfilled(objectives)

    assert fulfilled([0.1, 0.9], TargetObjectiveMetricValue=0.9) == "TargetObjectiveMetricValue"
    assert fulfilled([0.1, 0.8], TargetObjectiveMetricValue=0.9) is None
    patience = {"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}}
    assert fulfilled([0.5, 0.1, 0.2, 0.3], **patience) == "BestObjectiveNotImproving"
    assert fulfilled([0.1, 0.5, 0.2, 0.3], **patience) is None
    converged = {"ConvergenceDetected": {"CompleteOnConvergence": "Enabled"}}
    assert fulfilled([0.0, *[0.9] * 20], **converged) == "ConvergenceDetected"
    assert fulfilled([number / 20 for number in range(21)], **converged) is None
    assert fulfilled([0.9] * 40) is None


def test_jobs_without_improvement_are_counted_from_the_first_best() -> None:
    assert jobs_without_improvement([], maximize=True) == 0
    assert jobs_without_improvement([3, 1, 3], maximize=True) == 2
    assert jobs_without_improvement([3, 1, 3], maximize=False) == 1


def test_a_childs_request_has_all_that_its_definition_says() -> None:
    definition = {
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": "role",
        "StaticHyperParameters": {"epochs": "3"},
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "HyperParameterTuningResourceConfig": {
            "InstanceConfigs": [
                {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 50}
            ]
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "EnableManagedSpotTraining": True,
        "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints/"},
        "Environment": {"A": "1"},
    }
    request = child_request(definition, name="t-001-0", tuned={"x": "1"}, objective="score")
    assert request["HyperParameters"] == {
        "epochs": "3",
        "x": "1",
        "_tuning_objective_metric": "score",
    }
    assert request["ResourceConfig"] == {
        "InstanceType": "ml.g5.xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 50,
    }
    assert request["CheckpointConfig"] == {"S3Uri": "s3://bucket/checkpoints/t-001-0"}
    assert (request["EnableManagedSpotTraining"], request["Environment"]) == (True, {"A": "1"})


def test_names_of_children_are_valid_for_the_longest_tuning() -> None:
    name = child_name("t" * 32, number=750)
    assert name.startswith("t" * 32 + "-750-")
    assert len(name) <= 63


def test_a_grid_of_numbers_is_an_error() -> None:
    with pytest.raises(TypeError, match="categorical"):
        start_search(config("Grid"), space=read_space(RANGES), static={})


def test_an_empty_space_has_one_point() -> None:
    assert Space({}).grid() == [{}]
