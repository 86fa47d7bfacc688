"""Published facts: QUBA's constants and the 326 measured models of "Beyond Accuracy".

Source: arXiv 2503.17110 and github.com/visinf/beyond-accuracy.
"""
