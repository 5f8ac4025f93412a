// A model's name for people; its id where the catalogue does not know it.

import type { ModelId, ModelStatus } from '../../lib/api/types';

export function modelName(id: ModelId, models: readonly ModelStatus[]): string {
  return models.find((model) => model.id === id)?.name ?? id;
}
