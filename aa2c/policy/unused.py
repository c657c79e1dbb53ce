"""Options that have no effect on the policy, as is known once there are spaces: see `aa2c.run.ignored`."""

from __future__ import annotations

from aa2c.config.config import Config
from aa2c.envs.observations import Image, ObsSpec, Several, image_layout
from aa2c.envs.spec import ActionSpec, Continuous, EnvSpec, Joint
from aa2c.policy.own import is_own
from aa2c.policy.policy import NO_CONVOLUTIONS, Policy


def without_effect(config: Config, spec: EnvSpec, policy: Policy) -> dict[str, str]:
    """Those that were changed from their defaults to no effect, and what they would need."""
    needs: dict[str, str] = {}
    if not _has_reals(spec.actions):
        needs["action_bounds"] = "actions of a Box"
    if policy.precision is NO_CONVOLUTIONS:
        needs["precision"] = "a trunk with convolutions"
    if not _has_hidden_layers(config, spec):
        needs["hidden_sizes"] = "--network mlp"
    if spec.obs is not None and not _has_scaled_images(spec.obs):
        needs["obs_scale"] = "an image of bytes"
    if policy.obs_rms is not None and not policy.obs_rms.mean.numel():
        needs["norm_obs"] = "observations beside images"
    default = Config()
    return {
        name: need
        for name, need in needs.items()
        if getattr(config, name) != getattr(default, name)
    }


def _has_scaled_images(spec: ObsSpec) -> bool:
    if isinstance(spec, Several):
        return any(map(_has_scaled_images, spec.parts))
    return isinstance(spec, Image)


def _has_reals(spec: ActionSpec) -> bool:
    if isinstance(spec, Joint):
        return any(map(_has_reals, spec.parts))
    return isinstance(spec, Continuous)


def _has_hidden_layers(config: Config, spec: EnvSpec) -> bool:
    """Whether the network has layers of `hidden_sizes`."""
    if is_own(config.network):
        return False
    if config.network == "mlp":
        return True
    layout = image_layout(spec.obs)
    if layout is None:
        return config.network == "auto" and not spec.is_image
    shares_a_layer = config.network != "document" and config.memory == "none"
    return layout.vector > 0 or shares_a_layer
