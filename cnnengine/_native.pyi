from typing import Any

def __getattr__(name: str) -> Any: ...  # compiled from csrc/cpu; its functions check their own arguments
