"""DeepCache's helper, mended where it counts. Not a knob: `cache` asks for it."""

from typing import Any

from DeepCache import DeepCacheSDHelper

from autotune.knobs.denoising._calls import Calls


class Helper(DeepCacheSDHelper):  # type: ignore[misc]
    """It counts the UNet's calls. DeepCache looks up the timestep instead: that waits for the GPU at every step, and
    takes PNDM's repeated timestep for one. And it begins anew with each call of the pipe: DeepCache counts on from
    where its first call began, so that a pipe that starts from a picture may begin with what is left of another one.
    """

    def __init__(self, pipe: Any, calls: Calls) -> None:
        super().__init__(pipe=pipe)
        self.calls = calls
        self.deep_layers_computed = 0

    def wrap_unet_forward(self) -> None:
        unet = self.pipe.unet
        forward = self.function_dict["unet_forward"] = unet.forward

        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.calls.new():
                self.cur_timestep = self.start_timestep = 0
                self.cached_output.clear()
            self.deep_layers_computed = 0
            result = forward(*args, **kwargs)
            self.calls.count(reused=self.deep_layers_computed == 0)
            self.cur_timestep += 1
            return result

        unet.forward = counted

    def wrap_block_forward(self, block: Any, name: str, block_i: int, layer_i: int, blocktype: str = "down") -> None:
        if block is None:
            return  # a UNet that was made smaller may have no middle block
        super().wrap_block_forward(block, name, block_i, layer_i, blocktype)
        if block is self.pipe.unet.down_blocks[-1]:
            key = (blocktype, name, block_i, layer_i)
            self.function_dict[key] = self._watched(self.function_dict[key])

    def _watched(self, forward: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.deep_layers_computed += 1
            return forward(*args, **kwargs)

        return watched
