"""Model directories, the scorer and the engines that feed it; never MLflow."""
