"""Trains LeNet-5 on the digits that come with the package: python examples/train_digits.py [epochs]"""

import sys

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
cnn.manual_seed(0)
digits = cnn.data.digits()  # 10,000 training and 2,000 test images (N, 28, 28, 1)
model = cnn.models.lenet5()
optimizer = cnn.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

for epoch in range(epochs):
    optimizer.lr = cnn.optim.cosine(0.05, epoch, epochs)
    for images, labels in cnn.data.batches(digits.train_images, digits.train_labels, 64, shuffle=True):
        loss = F.cross_entropy(model(cnn.Tensor(digits.normalize(images))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with cnn.no_grad():
        logits = model(cnn.Tensor(digits.normalize(digits.test_images))).numpy()
    accuracy = np.mean(logits.argmax(1) == digits.test_labels)
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}, test accuracy {accuracy:.2%}")

cnn.save(model.state_dict(), "lenet5.safetensors")
