"""The networks once more, in plain PyTorch: written from the papers, with torchvision's names, as references."""
