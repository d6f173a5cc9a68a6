"""Source and constants to a kernel that runs: NVRTC for a GPU, g++ for the emulator, a cache on disk for both."""
