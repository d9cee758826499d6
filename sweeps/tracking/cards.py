"""The model card of a registered model in MLflow."""

from mlflow import MlflowClient
from mlflow.entities import Run

from ltsd.markdown import within

ARTIFACT = "model_card.md"
LIMIT = 5000
"""Characters that MLflow's databases keep of a version's description; PostgreSQL refuses more."""
REST = f"\nThe rest is in the artifact `{ARTIFACT}` of the run.\n"


def log_card(client: MlflowClient, run: Run, name: str, card: str) -> None:
    """Log a card with the run that made the model, and make it the description of the run's versions of the model.

    Args:
        client: of the tracking server and the registry.
        run: the final run.
        name: of the registered model.
        card: in Markdown; the description has the paragraphs that fit.
    """
    client.log_text(run.info.run_id, card, ARTIFACT)
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'"):
        client.update_model_version(name, version.version, within(card, LIMIT, REST))
