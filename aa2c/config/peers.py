"""Options by the names that users of other libraries know them by: SB3, CleanRL, RLlib, Sample Factory.

A name from here is never accepted: an error says what aa2c calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aa2c.config.values import nearest

ALIKE = 0.6  # other libraries' names resemble many of ours

NAMES = {
    "advantage_estimator": "advantage",
    "algo": "mode",
    "algorithm": "mode",
    "async_mode": "vectorization",
    "clip_range": "clip_coef",
    "clip_range_vf": "clip_vloss",
    "cnn": "network",
    "discount": "gamma",
    "discount_factor": "gamma",
    "encoder_conv_architecture": "network",
    "ent_weight": "ent_coef",
    "entropy_coef": "ent_coef",
    "entropy_coeff": "ent_coef",
    "entropy_weight": "ent_coef",
    "env_id": "env",
    "env_name": "env",
    "epochs": "update_epochs",
    "epsilon": "optimizer_eps",
    "eval_freq": "eval_interval_s",
    "exp_name": "name",
    "experiment": "name",
    "frameskip": "frame_skip",
    "gae": "gae_lambda",
    "grad_clip": "max_grad_norm",
    "hidden_size": "hidden_sizes",
    "horizon": "num_steps",
    "lam": "gae_lambda",
    "lambda": "gae_lambda",
    "log_dir": "runs_dir",
    "logdir": "runs_dir",
    "lr": "learning_rate",
    "lstm": "memory",
    "lstm_hidden_size": "memory_size",
    "lstm_size": "memory_size",
    "max_steps": "total_env_steps",
    "max_timesteps": "total_env_steps",
    "model": "network",
    "n_actors": "workers",
    "n_envs": "num_envs",
    "n_epochs": "update_epochs",
    "n_eval_episodes": "eval_episodes",
    "n_minibatches": "minibatches",
    "n_steps": "num_steps",
    "n_timesteps": "total_env_steps",
    "n_workers": "workers",
    "net_arch": "hidden_sizes",
    "normalize": "norm_obs",
    "normalize_advantage": "norm_adv",
    "normalize_input": "norm_obs",
    "num_actors": "workers",
    "num_env_runners": "workers",
    "num_envs_per_worker": "num_envs",
    "num_epochs": "update_epochs",
    "num_minibatches": "minibatches",
    "num_processes": "workers",
    "num_rollout_workers": "workers",
    "num_timesteps": "total_env_steps",
    "num_workers": "workers",
    "output_dir": "runs_dir",
    "policy": "network",
    "policy_layers": "hidden_sizes",
    "ppo_clip": "clip_coef",
    "recurrence": "sequence_length",
    "recurrent": "memory",
    "rnn_size": "memory_size",
    "rnn_type": "memory",
    "rollout": "num_steps",
    "rollout_fragment_length": "num_steps",
    "rollout_length": "num_steps",
    "save_freq": "checkpoint_interval_s",
    "save_interval": "checkpoint_interval_s",
    "sticky_actions": "sticky_action_prob",
    "t_max": "num_steps",
    "tensorboard": "track",
    "tensorboard_log": "track",
    "timesteps": "total_env_steps",
    "total_frames": "total_env_steps",
    "total_steps": "total_env_steps",
    "total_timesteps": "total_env_steps",
    "train_dir": "runs_dir",
    "unroll_length": "num_steps",
    "use_lstm": "memory",
    "use_rms_prop": "optimizer",
    "use_rnn": "memory",
    "value_coef": "vf_coef",
    "value_loss_coef": "vf_coef",
    "vf_loss_coeff": "vf_coef",
    "vf_weight": "vf_coef",
    "vtrace": "advantage",
    "wandb": "track",
    "with_vtrace": "advantage",
}

_CPU = "aa2c trains on CPUs only"
_VIDEO = "record a trained policy with python -m aa2c eval RUN --video game.mp4"
_STACK = "Atari games are stacked by four, others by a --wrapper of yours that uses FrameStackObservation"
_OWN = (
    "--hidden-sizes gives the MLP's layers; --network module:function takes a network of your own"
)
ELSEWHERE = {
    "activation_fn": _OWN,
    "batch_size": "in mode traj a batch has --batch-steps vector steps, and each pass over it "
    "--minibatches parts (0: of 128 transitions each)",
    "capture_video": _VIDEO,
    "cuda": _CPU,
    "device": _CPU,
    "env_framestack": _STACK,
    "frame_stack": _STACK,
    "gpu": _CPU,
    "gpus": _CPU,
    "log_interval": "a progress line follows every few seconds, and the dashboard shows each",
    "num_gpus": _CPU,
    "policy_kwargs": _OWN,
    "progress_bar": "serve shows its progress anyway, and train(config, progress=True) does",
    "record_video": _VIDEO,
    "save_model": "each run saves its policy, every --checkpoint-interval-s and at its end",
    "torch_deterministic": "--deterministic makes the whole run repeatable",
    "use_sde": "aa2c has no state-dependent exploration; actions have a std that is learned",
    "verbose": "serve --quiet prints less, and a run's log.jsonl has everything",
}


def meant(name: str, known: Iterable[str], spelled: Callable[[str], str] = str) -> str:
    """How a sentence about an unknown option ends that says which was meant; empty if none is near."""
    known, plain = list(known), name.lower().replace("-", "_")
    if plain in ELSEWHERE:
        return f": {ELSEWHERE[plain]}."
    if plain in NAMES and NAMES[plain] in known:
        return f": aa2c calls it {spelled(NAMES[plain])}."
    return nearest(spelled(name), map(spelled, known), ALIKE)
