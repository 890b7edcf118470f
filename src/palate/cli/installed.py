"""What this installation has and can do."""

import os

from palate.cli.terminal import app, console


@app.command
def sources() -> None:
    """List the sources of data and their options.

    Example:

      palate sources
    """
    import inspect

    from palate.data.sources import key_of, source_options
    from palate.data.sources import sources as all_sources

    for name, source in sorted(all_sources().items()):
        first_line = (inspect.getdoc(source) or "").split("\n")[0]
        console.out(f"{name}: {first_line}")
        for option, parameter in source_options(name).items():
            needed = parameter.default is inspect.Parameter.empty
            where = key_of(option)
            console.out(f"  {where} {'(needed)' if needed else f'= {parameter.default}'}")


@app.command
def doctor() -> None:
    """Say what is installed, which devices there are, and what will be used.

    Example:

      palate doctor
    """
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from palate.environment import device_of
    from palate.run_folder import VERSIONS

    console.out(f"python {platform.python_version()} on {platform.platform()}")
    for name in (*VERSIONS, "accelerate", "tensorboard"):
        try:
            console.out(f"{name} {version(name)}")
        except PackageNotFoundError:
            console.out(f"{name} MISSING; reinstall with: pip install palate")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    console.out(f"cpu: {cores} cores, torch uses {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        console.out(f"cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    console.out(f"device auto means {device_of('auto')}")
