/* fold.h - what the operators on constants share */
#ifndef NIMBUS_IMPORT_FOLD_H
#define NIMBUS_IMPORT_FOLD_H

#include "import/import.h"

/* An array of the type of `like`, with room for multiples of N if that has some. Errors: LIMIT,
 * MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_fold_new(nimbus_importer *im, const nimbus_constant *like,
                                                size_t rank, const size_t *dims,
                                                nimbus_constant *out, nimbus_error *error);
/* Element to[at] = from[from_at]. */
void nimbus_fold_copy(nimbus_constant *to, size_t at, const nimbus_constant *from, size_t from_at);
/* Input k, NULL if it is left out. */
const nimbus_constant *nimbus_fold_input(nimbus_importer *im, const nimbus_import_node *n,
                                         size_t k);
/* The node's result: input 0 with other dimensions, of as many elements. */
NIMBUS_MUST_CHECK nimbus_status nimbus_fold_reshaped(nimbus_importer *im,
                                                     const nimbus_import_node *n, size_t rank,
                                                     const size_t *dims, nimbus_error *error);
/* The next position in an array; false behind the last. */
bool nimbus_fold_next(size_t rank, const size_t *dims, size_t *at);

#endif
