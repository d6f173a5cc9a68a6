"""A step of gradient descent, in place: parameter, gradient, velocity (count,), one launch a parameter.

    g = gradient * scale + decay * p;  v = momentum * v + g;  p -= lr * (nesterov ? g + momentum * v : v)

hyper (5,) = learning rate, momentum, weight decay, nesterov (0 or 1), gradient scale; it lies on the device, so that a
captured graph sees a new learning rate. Without momentum there is no velocity and v is g.
Rungs: ``direct`` alone, as in activation.py.
Roofline: reads parameter, gradient and velocity, writes parameter and velocity: 20 bytes an element, bound by memory.
"""

from numba import cuda, float32, int32

from .common import ELEMENTS_PER_BLOCK, ELEMENTS_PER_THREAD, THREADS, ZERO, blocks


@cuda.jit
def sgd(hyper, parameter, gradient, velocity, has_velocity):
    """``velocity`` is any array where ``has_velocity`` is 0"""
    lr = hyper[0]
    momentum = hyper[1]
    decay = hyper[2]
    nesterov = hyper[3]
    scale = hyper[4]
    first = cuda.blockIdx.x * ELEMENTS_PER_BLOCK + cuda.threadIdx.x
    for i in range(ELEMENTS_PER_THREAD):
        index = first + i * THREADS
        if index < parameter.size:
            p = parameter[index]
            g = gradient[index] * scale + decay * p
            if has_velocity:
                v = momentum * velocity[index] + g
                velocity[index] = v
                g = g + momentum * v if nesterov != ZERO else v
            parameter[index] = p - lr * g


def step(launch, parameters, gradients, states, hyper):
    """``states`` is one velocity a parameter, or empty."""
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        p, g = parameter.reshape(-1), gradient.reshape(-1)
        velocity = launch.out(states[i].reshape(-1)) if states else g
        args = hyper, launch.out(p), g, velocity, launch.integer(bool(states))
        launch(sgd, blocks(p.size, ELEMENTS_PER_BLOCK), THREADS, *args)


SIGNATURES = [(sgd, (*(float32[::1],) * 4, int32))]
