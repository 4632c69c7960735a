# How the daemons are hardened, and made so that two builds of one source are the same bytes. Each flag only where the
# compiler knows it; a packager's own flags (CFLAGS, CMAKE_C_FLAGS) come first and are not fought.
include(CheckCCompilerFlag)
include(CheckLinkerFlag)

function(sidrail_compile_flag flag)
  string(MAKE_C_IDENTIFIER "HAS${flag}" known)
  check_c_compiler_flag("${flag}" ${known})
  if(${known})
    target_compile_options(sidrail_flags INTERFACE ${flag})
  endif()
endfunction()

function(sidrail_link_flag flag)
  string(MAKE_C_IDENTIFIER "HAS${flag}" known)
  check_linker_flag(C "${flag}" ${known})
  if(${known})
    target_link_options(sidrail_flags INTERFACE "${flag}")
  endif()
endfunction()

# Position-independent executables (-fPIC, which CMake would give to the libraries, keeps functions from being inlined),
# with what the loader resolves resolved and read-only from the start.
sidrail_compile_flag(-fPIE)
sidrail_link_flag(-pie)
sidrail_link_flag("LINKER:-z,relro")
sidrail_link_flag("LINKER:-z,now")
sidrail_link_flag("LINKER:-z,noexecstack")

sidrail_compile_flag(-fstack-protector-strong)
sidrail_compile_flag(-fstack-clash-protection)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64|i[3-6]86)$")
  sidrail_compile_flag(-fcf-protection=full) # CET: endbr64, shadow stacks
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  sidrail_compile_flag(-mbranch-protection=standard) # BTI, PAC
endif()

# It needs optimisation, and hides overflows from the sanitizers.
if(SANITIZER STREQUAL "" AND NOT "${CMAKE_C_FLAGS}" MATCHES "_FORTIFY_SOURCE")
  set(optimised "$<CONFIG:Release,RelWithDebInfo,MinSizeRel>")
  target_compile_options(sidrail_flags INTERFACE
    "$<${optimised}:-U_FORTIFY_SOURCE>" "$<${optimised}:-D_FORTIFY_SOURCE=2>")
endif()

# No place of the machine that built it: in __FILE__ of check(), and in debug information.
file(RELATIVE_PATH from_build ${CMAKE_BINARY_DIR} ${CMAKE_SOURCE_DIR})
string(REGEX REPLACE "/$" "" from_build "${from_build}")
check_c_compiler_flag("-ffile-prefix-map=a=b" HAS_PREFIX_MAP)
if(HAS_PREFIX_MAP)
  target_compile_options(sidrail_flags INTERFACE
    "-ffile-prefix-map=${CMAKE_SOURCE_DIR}=." "-ffile-prefix-map=${CMAKE_BINARY_DIR}=./build"
    "-ffile-prefix-map=${from_build}/=./")
endif()
