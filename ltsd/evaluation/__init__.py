"""How right a model is: on clean and attacked images, by class; the exam on the test set and what is made of it."""
