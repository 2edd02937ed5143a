"""What words of a peer's settings put into its environment; peers.py lists them."""

import alternate


def environment(word):
    """What a setting puts into the environment."""
    if word == "jemalloc":  # the options that PyTorch's tuning guide gives
        return {"LD_PRELOAD": alternate.library("libjemalloc.so.2", "apt-get install libjemalloc2"),
                "MALLOC_CONF": "oversize_threshold:1,background_thread:true,metadata_thp:auto,dirty_decay_ms:9000000000,muzzy_decay_ms:9000000000"}
    if word == "tcmalloc":
        return {"LD_PRELOAD": alternate.library("libtcmalloc_minimal.so.4", "apt-get install libtcmalloc-minimal4")}
    if word == "iomp":
        return {"LD_PRELOAD": alternate.library("libiomp5.so", "pip install intel-openmp"),
                "KMP_AFFINITY": "granularity=fine,compact,1,0", "KMP_BLOCKTIME": "1"}
    if word == "bind":
        return {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}
    raise SystemExit(f"setting {word} is unknown")
