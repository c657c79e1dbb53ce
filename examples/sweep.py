"""Search for good options with Optuna: every trial trains with several seeds, and poor ones are pruned.

Trials are kept in sweep.db: start the script again to continue, and several times to search in
parallel. Needs `pip install optuna`.
"""

import statistics
import sys

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

import aa2c

ENV_STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
TRIALS = int(sys.argv[2]) if len(sys.argv) > 2 else 30
SEEDS = (0, 1)
PARTS = 10  # of a run, after each of which it may be pruned
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def objective(trial):
    """The mean return over all seeds."""
    options = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-2, log=True),
        "ent_coef": trial.suggest_float("ent_coef", 1e-4, 0.1, log=True),
        "num_steps": trial.suggest_categorical("num_steps", [8, 16, 32]),
    }
    returns = []
    for seed in SEEDS:
        config = aa2c.recipe(
            "CartPole-v1",
            seed=seed,
            workers=2,
            total_env_steps=ENV_STEPS,
            eval_interval_s=0,
            runs_dir="runs/sweep",
            **options,
        )
        status = aa2c.train(config, callback=Pruning(trial, returns))
        mean = status["returns"]["train"]["mean"]
        if status["progress"]["env_steps"] < ENV_STEPS or mean is None:
            raise optuna.TrialPruned
        returns.append(mean)
        trial.set_user_attr(f"run of seed {seed}", status["run"]["dir"])
    return statistics.fmean(returns)


class Pruning:
    """A callback that reports the mean return so far, over all seeds, and stops a poor run."""

    def __init__(self, trial, returns):
        self.trial, self.returns = trial, list(returns)
        self.reported = PARTS * len(returns)

    def __call__(self, event, status, run):
        progress = status["progress"]["env_steps"] / ENV_STEPS
        mean = status["returns"]["train"]["mean"]
        step = int(PARTS * (len(self.returns) + progress))
        if event != "second" or mean is None or step <= self.reported:
            return True
        self.reported = step
        self.trial.report(statistics.fmean([*self.returns, mean]), step)
        return not self.trial.should_prune()


def main():
    """Continue the study, or begin it."""
    storage = RDBStorage(
        "sqlite:///sweep.db",
        heartbeat_interval=60,  # a trial whose process was killed is tried again
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=1),
    )
    study = optuna.create_study(
        storage=storage, study_name="CartPole-v1", load_if_exists=True, direction="maximize"
    )
    wanted = TRIALS - len(study.get_trials(states=ENDED))
    if wanted > 0:
        # It counts the trials of all processes.
        enough = optuna.study.MaxTrialsCallback(TRIALS, states=ENDED)
        study.optimize(objective, n_trials=wanted, callbacks=[enough])
    print(f"{len(study.get_trials(states=ENDED))} trials; best: {study.best_value:.1f}")
    print(study.best_params)


if __name__ == "__main__":  # a test imports this
    main()
