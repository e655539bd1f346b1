"""_deepcache_helper: DeepCache's helper with another way to count steps. A helper of the knob `cache`."""

from typing import TYPE_CHECKING, Any

from DeepCache import DeepCacheSDHelper

from autotune.knobs.caching._calls import Calls

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Helper(DeepCacheSDHelper):  # type: ignore[misc]
    """Counts the UNet's calls, from 0 in each call of the pipe.

    DeepCache looks up the timestep instead. That waits for the GPU at every step, and counts PNDM's repeated timestep
    once. DeepCache also counts from where its first call began, so a pipe that starts from a picture may reuse blocks
    of an earlier call.
    """

    def __init__(self, pipe: "DiffusionPipeline", calls: Calls) -> None:
        super().__init__(pipe=pipe)
        self.calls = calls
        self.deep_layers_computed = 0

    @property
    def layers(self) -> int:
        """The layers of the UNet that are left out where nothing deep is computed."""
        return len(self.function_dict) - 1

    def wrap_unet_forward(self) -> None:
        unet = self.pipe.unet
        forward = self.function_dict["unet_forward"] = unet.forward

        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.calls.is_new():
                self.cur_timestep = self.start_timestep = 0
                self.cached_output.clear()
            self.deep_layers_computed = 0
            result = forward(*args, **kwargs)
            self.calls.count(reused=0 if self.deep_layers_computed else self.layers)
            self.cur_timestep += 1
            return result

        unet.forward = counted

    def wrap_block_forward(self, block: Any, name: str, block_i: int, layer_i: int, blocktype: str = "down") -> None:
        if block is None:
            return  # pruned UNets have no middle block
        super().wrap_block_forward(block, name, block_i, layer_i, blocktype)
        if block is self.pipe.unet.down_blocks[-1]:
            key = (blocktype, name, block_i, layer_i)
            self.function_dict[key] = self._watched(self.function_dict[key])

    def _watched(self, forward: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.deep_layers_computed += 1
            return forward(*args, **kwargs)

        return watched
