// Everything but the optional headers.
#pragma once

#include "flotilla/command.hpp"
#include "flotilla/db.hpp"
#include "flotilla/error.hpp"
#include "flotilla/metrics.hpp"
#include "flotilla/options.hpp"
#include "flotilla/status.hpp"
#include "flotilla/stream.hpp"
#include "flotilla/txn.hpp"
#include "flotilla/types.hpp"
