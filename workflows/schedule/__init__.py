"""What the user's own scheduler runs: crontab lines, systemd timers, KubeRay manifests."""
