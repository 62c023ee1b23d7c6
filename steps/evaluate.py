"""Evaluate: how good the packed model is, and where it errs."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from darkroom.base.files import workspace
from darkroom.config import EvaluationConfig
from darkroom.config.sections import Split
from darkroom.data.dataset import Dataset
from darkroom.data.hashes import check_unchanged
from darkroom.evaluation.evaluate import Evaluation, evaluate
from darkroom.models.bundle import Bundle
from darkroom.models.prediction import Predictor
from darkroom.tracking.runs import active_run
from steps.cache_policy import depends_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on(
        "darkroom.evaluation.evaluate",
        "darkroom.models.prediction",
        "darkroom.reports.evaluation_page",
        "darkroom.data.hashes",
        "darkroom.tracking.runs",
        files=("darkroom/templates",),
    ),
)
def evaluate_model(
    bundle: Bundle, dataset: Dataset, evaluation: EvaluationConfig, seed: int
) -> tuple[
    Annotated[Evaluation, "test_evaluation"],
    Annotated[Evaluation, "validation_evaluation"],
    Annotated[HTMLString, "evaluation_report"],
]:
    """Measure the bundle, as it will be served, on the test and the validation split.

    Args:
        bundle: the packed model.
        dataset: cleaned.
        evaluation: intervals, bins and pictures of the report.
        seed: of the bootstrap and of the choice of pictures.
    """
    from darkroom.reports.evaluation_page import evaluation_figures, evaluation_report

    check_unchanged(dataset, splits=("test", "validation"), store=workspace() / "data")
    predictor = Predictor.load(bundle.folder)

    def measured(split: Split) -> Evaluation:
        records = dataset.split(split)
        probabilities = predictor.predict([dataset.file(record) for record in records])
        judged = evaluate(
            probabilities,
            records=records,
            classes=predictor.classes,
            config=evaluation,
            seed=seed,
        )
        ran = {"engine": predictor.engine.name, "engine_fallback": predictor.fallback}
        return judged.model_copy(update=ran)

    test, validation = measured("test"), measured("validation")
    figures = evaluation_figures(test, dataset=dataset, config=evaluation, seed=seed)
    report = evaluation_report(
        test, dataset=dataset, figures=figures, images=evaluation.grid_images, seed=seed
    )
    run = active_run()
    for name, figure in figures.items():
        run.figure(figure, file=f"figures/{name}.png")
    run.text(report, file="reports/evaluation.html")
    log_metadata({**test.values(), "engine": test.engine})
    return test, validation, HTMLString(report)
