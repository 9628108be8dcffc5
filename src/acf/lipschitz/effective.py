def effective_tensors(layers):
    return [layer.effective_tensors() for layer in layers]
