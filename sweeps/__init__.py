"""The orchestration: Ray runs the jobs, Optuna proposes them, MLflow keeps what they measured."""
