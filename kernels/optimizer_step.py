"""Optimizer steps, in place: parameter, gradient, states (count,), one launch a parameter.

sgd, with a velocity v, or without momentum none and v = g:
    g = gradient * scale + decay * p;  v = momentum * v + g;  p -= lr * (nesterov ? g + momentum * v : v)

    hyper (5,) = learning rate, momentum, weight decay, nesterov (0 or 1), gradient scale
adam, with two moments m and v:
    g = gradient * scale + decay * p;  m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g * g
    p = kept * p - rate * m / (sqrt(v) * correction + epsilon)
    hyper (10,) = rate = lr / (1 - beta1**t), beta1, 1 - beta1, beta2, 1 - beta2, correction = 1 / sqrt(1 - beta2**t),
    epsilon, weight decay, kept, gradient scale

hyper lies on the device, so that a captured graph sees a new learning rate and new bias corrections.
Rungs: ``direct`` alone, as in activation.py.
Roofline: sgd reads parameter, gradient and velocity and writes parameter and velocity, 20 bytes an element; adam has
two states, 28 bytes: bound by memory.
"""

from numba import cuda, float32, int32

from .common import ELEMENTS_PER_THREAD, THREADS, ZERO, elementwise, sqrt


@cuda.jit
def sgd(hyper, parameter, gradient, velocity, has_velocity):
    """``velocity`` is any array where ``has_velocity`` is 0"""
    lr = hyper[0]
    momentum = hyper[1]
    decay = hyper[2]
    nesterov = hyper[3]
    scale = hyper[4]
    first = cuda.blockIdx.x * cuda.blockDim.x * ELEMENTS_PER_THREAD + cuda.threadIdx.x
    for i in range(ELEMENTS_PER_THREAD):
        index = first + i * cuda.blockDim.x
        if index < parameter.size:
            p = parameter[index]
            g = gradient[index] * scale + decay * p
            if has_velocity:
                v = momentum * velocity[index] + g
                velocity[index] = v
                g = g + momentum * v if nesterov != ZERO else v
            parameter[index] = p - lr * g


@cuda.jit
def adam(hyper, parameter, gradient, moment_1, moment_2):
    rate = hyper[0]
    beta1 = hyper[1]
    rest1 = hyper[2]
    beta2 = hyper[3]
    rest2 = hyper[4]
    correction = hyper[5]
    epsilon = hyper[6]
    decay = hyper[7]
    kept = hyper[8]
    scale = hyper[9]
    first = cuda.blockIdx.x * cuda.blockDim.x * ELEMENTS_PER_THREAD + cuda.threadIdx.x
    for i in range(ELEMENTS_PER_THREAD):
        index = first + i * cuda.blockDim.x
        if index < parameter.size:
            p = parameter[index]
            g = gradient[index] * scale + decay * p
            m = beta1 * moment_1[index] + rest1 * g
            v = beta2 * moment_2[index] + rest2 * g * g
            moment_1[index] = m
            moment_2[index] = v
            parameter[index] = kept * p - rate * m / (sqrt(v) * correction + epsilon)


def step(launch, kind, parameters, gradients, states, hyper, block=THREADS):
    """``states``: of sgd one velocity a parameter, or none; of adam all first moments, then all second ones."""
    count = len(parameters)
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        p, g = parameter.reshape(-1), gradient.reshape(-1)
        own = [launch.out(state.reshape(-1)) for state in states[i::count]]
        size = elementwise(p.size, block)
        if kind == "adam":
            launch(adam, *size, hyper, launch.out(p), g, *own)
        else:
            launch(sgd, *size, hyper, launch.out(p), g, own[0] if own else g, launch.integer(bool(own)))


SIGNATURES = [
    (sgd, (*(float32[::1],) * 4, int32)),
    (adam, (float32[::1],) * 5),
]
