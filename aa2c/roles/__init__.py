"""What runs in each child process: worker, updater, evaluator. They see the world through their ports."""
