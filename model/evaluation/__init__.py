"""How well a model does: exams from annotated images, and the field's measures of the answers."""
